DELETE FROM semel.keys WHERE function = '' AND key = 'check'
