"""Sessions of consumers in virtual time: models of Kafka and a database, plans, an oracle."""
