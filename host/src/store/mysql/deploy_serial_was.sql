-- Whether groups of a function are in order now; if that is going to change, groups_lock_all.sql comes first.
SELECT serial FROM functions WHERE name = ?
