-- Whose the engine's sessions are, in which database, whether this login may make users, and how many sessions there may be.
SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AS engine, DATABASE() AS name,
    EXISTS (
        SELECT 1 FROM information_schema.user_privileges
        WHERE privilege_type = 'CREATE USER'
          AND grantee = CONCAT('''', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')
    ) AS makes_users,
    CAST(@@max_connections AS SIGNED) AS connections
