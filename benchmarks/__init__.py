"""Repeatable measurements; results are kept with the hardware they ran on."""
