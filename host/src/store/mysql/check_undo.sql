DELETE FROM `keys` WHERE `function` = '' AND `key` = 'check'
