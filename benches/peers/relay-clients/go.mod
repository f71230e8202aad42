module flamenco-webupdates.example/benches/relay-clients

go 1.22

require flamenco-webupdates.example/benches/websocket v0.0.0

replace flamenco-webupdates.example/benches/websocket => ../websocket
