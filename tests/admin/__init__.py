"""The services of the gRPC plane, on a real store."""
