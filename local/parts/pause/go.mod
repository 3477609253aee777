module tuneyard.io/local/pause
go 1.26.0
