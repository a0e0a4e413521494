/*
 * Start a command, once or many times at once, and say what each start cost.
 *
 *     launch COUNT OUTPUT ROOT COMMAND...
 *
 * A process's peak memory as wait4 gives it is never below that of the process which it
 * was forked from, so the parent has to be smaller than anything it measures. ROOT is
 * what the command gets as its root folder: "/" for no other. Its output is appended to
 * OUTPUT. A line for each process, in the order of their ends: exit code, start and end
 * on the monotonic clock in nanoseconds, CPU time of it and its children in
 * microseconds, peak memory in kB.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct start { pid_t pid; long long at_ns; };

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long to_us(struct timeval t) { return t.tv_sec * 1000000LL + t.tv_usec; }

static void become(char **argv)
{
    int input = open("/dev/null", O_RDONLY);
    int output = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (input < 0 || output < 0) _exit(126);
    dup2(input, 0);
    dup2(output, 1);
    dup2(output, 2);
    if (argv[3][1] && (chroot(argv[3]) || chdir("/"))) _exit(126);
    execvp(argv[4], argv + 4);
    _exit(127);
}

int main(int argc, char **argv)
{
    if (argc < 5) return 2;
    int count = atoi(argv[1]);
    struct start *starts = calloc(count, sizeof *starts);
    for (int i = 0; i < count; i++) {
        starts[i].at_ns = now_ns();
        starts[i].pid = fork();
        if (!starts[i].pid) become(argv);
    }
    for (int left = count; left; left--) {
        int status;
        struct rusage used;
        pid_t pid = wait4(-1, &status, 0, &used);
        long long ended_ns = now_ns();
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        for (int i = 0; i < count; i++)
            if (starts[i].pid == pid)
                printf("%d %lld %lld %lld %ld\n", code, starts[i].at_ns, ended_ns,
                       to_us(used.ru_utime) + to_us(used.ru_stime), used.ru_maxrss);
    }
    return 0;
}
