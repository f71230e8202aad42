module example.org/forwarder

go 1.22
