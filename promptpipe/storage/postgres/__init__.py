"""PostgreSQL, natively on Trio. So far the driver."""
