SELECT name FROM semel_functions WHERE name = $1
