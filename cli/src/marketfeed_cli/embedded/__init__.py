"""What a demo on one machine stands on when the user brings none: a Kafka broker and a PostgreSQL server."""
