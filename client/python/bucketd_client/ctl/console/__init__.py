"""``bucketctl console``: the server of the page, on loopback, and its guard."""
