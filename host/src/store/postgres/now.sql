-- The store's clock.
SELECT semel.now()
