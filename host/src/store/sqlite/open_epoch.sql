-- Begins a new epoch: whatever an earlier host had claimed is free from now on.
UPDATE semel_store SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch, secret
