module flamenco-webupdates.example/benches/cluster-clients

go 1.22
