"""Clicks to features: decoding, the window engine, the Kafka source, the sinks and the dataflow."""
