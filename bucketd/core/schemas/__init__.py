"""What a bucket of an automation may hold: both forms of a schema, and the ones in force."""
