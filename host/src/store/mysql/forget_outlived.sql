-- A key that never ends outlives its message, and remembers how that ended. A list of seqs, a state.
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN messages m FORCE INDEX (PRIMARY) ON m.seq = t.seq STRAIGHT_JOIN `keys` k FORCE INDEX (keys_message) ON k.message = m.id SET k.ended_as = ?
