-- After a commit: all that DISCARD ALL throws away, but for plans and for locks, which this login cannot have.
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; DISCARD SEQUENCES; DISCARD TEMP
