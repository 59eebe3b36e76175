-- In an app's session: messages of events that the guest published, one per element, as for enqueue.sql. $1 token.
SELECT semel_api.publish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
