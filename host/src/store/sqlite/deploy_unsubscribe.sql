DELETE FROM semel_subscriptions WHERE function = ?1
