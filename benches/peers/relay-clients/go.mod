module flamenco-webupdates.example/benches/relay-clients

go 1.22
