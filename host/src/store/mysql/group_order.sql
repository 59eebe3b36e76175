-- Puts groups (a list) in order after their rows were changed, under their locks.
CALL order_groups(?)
