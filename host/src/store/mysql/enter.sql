-- In an app's session: whether claims hold (? a list of their seqs and fences, ? the token of all). ENGINE is the engine's database.
CALL ENGINE.enter(?, ?)
