-- The apps that have ever been deployed or prepared, each with its login, if it has one of its own.
SELECT known.app, a.login
FROM (SELECT app FROM versions WHERE app <> 'semel' UNION SELECT app FROM apps) AS known LEFT JOIN apps a ON a.app = known.app
ORDER BY known.app
