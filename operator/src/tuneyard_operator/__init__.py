"""The kopf operator that carries a FineTuneJob from data to a served adapter."""
