// Flyway's API, called as its command line calls it: the command line is not on Maven's
// central registry.

import org.flywaydb.core.Flyway;

public final class RunFlyway {
    public static void main(String[] arguments) {
        Flyway.configure()
                .dataSource(arguments[0], System.getenv("PGUSER"), System.getenv("PGPASSWORD"))
                .locations("filesystem:" + arguments[1])
                .load()
                .migrate();
    }
}
