-- Lets the owner of an app log in, for as long as its migrations take. {owner}: quoted identifier; {password}: quoted text.
ALTER ROLE {owner} LOGIN CONNECTION LIMIT 4 PASSWORD {password}
