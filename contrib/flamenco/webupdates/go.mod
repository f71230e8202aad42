module flamenco-webupdates.example/contrib/flamenco/webupdates

go 1.22
