-- Lets the owner of an app log in, for as long as its migrations take. {owner}: quoted name; {password}: quoted text.
ALTER USER {owner}@'%' IDENTIFIED BY {password} ACCOUNT UNLOCK
