INSERT INTO accounts (id, balance) VALUES ('alice', 100), ('bob', 100);
