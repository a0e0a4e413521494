-- Built from the tool's source, not written by the tool: sequelize/umzug d79c19f src/storage/sequelize.ts:139-149 (timestamps: true)
CREATE TABLE "SequelizeMeta" (name varchar(255) PRIMARY KEY, "createdAt" timestamptz NOT NULL, "updatedAt" timestamptz NOT NULL);
INSERT INTO "SequelizeMeta" VALUES ('1-a.js', now(), now());
