DELETE FROM semel.subscriptions WHERE function = $1
