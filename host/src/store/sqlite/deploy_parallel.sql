-- No order of groups: where it is asked for, it is made anew after this.
UPDATE semel_queue SET blocked = 0 WHERE function = ?1 AND blocked = 1
