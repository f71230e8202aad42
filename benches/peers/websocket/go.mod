module flamenco-webupdates.example/benches/websocket

go 1.22
