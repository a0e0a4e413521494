-- Built from the tool's source, not written by the tool: elwinar/rambler 2d8a705 driver/postgresql/driver.go
CREATE TABLE migrations ( migration VARCHAR(255) NOT NULL );
INSERT INTO migrations VALUES ('201409272258_a.sql'), ('201409272259_b.sql');
