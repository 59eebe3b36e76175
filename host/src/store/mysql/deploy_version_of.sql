-- The number of the version that was made under the lock of deploys.
SELECT MAX(version) FROM versions WHERE `function` = ?
