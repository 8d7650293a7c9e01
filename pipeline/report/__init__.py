"""report.html: a dataset for people who would rather look than read."""
