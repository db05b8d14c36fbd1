"""The leaves: errors, the option table and the command line, addresses, loading an application, logs. Knows no loop."""
