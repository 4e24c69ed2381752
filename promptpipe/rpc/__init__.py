"""The gRPC interface: HTTP/2 on Trio, the services, and the generated code they rest on."""
