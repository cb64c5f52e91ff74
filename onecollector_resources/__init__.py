"""How OneCollector talks to the world: clients, records and decisions that know nothing of Dagster."""
