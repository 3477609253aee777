"""The contract of Tuneyard: FineTuneJob, FineTuneRuntime, the pod contract."""
