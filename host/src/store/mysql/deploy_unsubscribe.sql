DELETE FROM subscriptions WHERE `function` = ?
