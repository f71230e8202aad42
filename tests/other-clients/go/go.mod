module bridge

go 1.22

require github.com/graarh/golang-socketio v0.0.0-20170510162725-2c44953b9b5f

require github.com/gorilla/websocket v1.5.3 // indirect
