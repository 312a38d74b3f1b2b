module marketfeed.dev/tests/pause

go 1.24
