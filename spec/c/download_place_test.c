/* mj_download_dir: whatever lies in the place of its files, and who else is at them. */
#include "download_help.h"
#include "rng.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char TEXT[] = "the bytes of an image", ETAG[] = "\"5f-1\"";
static const char *const places[] = {"kept/day/.a.part", "kept/day/.a.from"};

/* ---- no files ---- */

static void link_to_file(const char *path)
{
    CHECK_INT(symlink("../../precious", path), 0);
}

static void link_to_nowhere(const char *path)
{
    CHECK_INT(symlink("../../nowhere", path), 0);
}

static void hard_link(const char *path)
{
    CHECK_INT(link("precious", path), 0);
}

static void fifo(const char *path)
{
    CHECK_INT(mkfifo(path, 0600), 0);
}

static void a_socket(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
}

TEST("links, pipes and sockets in the place of a part or its note are replaced, and what links point to stays")
{
    static void (*const make[])(const char *) = {link_to_file, link_to_nowhere, hard_link, fifo, a_socket};
    mj_download_dir s = shelf_of(0600);
    int before;

    put_file("precious", "precious", 8);
    before = open_fds();
    for (size_t i = 0; i < sizeof make / sizeof make[0]; i++) {
        for (int both = 1; both <= 3; both++) {
            uint8_t sha[32];
            int64_t bytes;
            mj_part p;
            for (int k = 0; k < 2; k++)
                if (both & 1 << k)
                    make[i](places[k]);
            p = part_of(&s, "a");
            CHECK_INT(p.have, 0);
            fill(&p, ETAG, TEXT);
            check_file("precious", "precious");
            CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK);
            check_file("kept/day/a.png", TEXT);
            CHECK_INT(entries("kept/day"), 1);
        }
    }
    check_file("precious", "precious");
    CHECK(!there("nowhere"));
    CHECK_INT(open_fds(), before);
    mj_download_dir_close(&s);
}

TEST("a hard link to what was received is not gone on with, and its bytes stay as they are")
{
    mj_download_dir s = shelf_of(0600);

    leave(&s, "a", ETAG, TEXT);
    CHECK_INT(link("kept/day/.a.part", "other"), 0);
    leave(&s, "a", ETAG, "x");
    check_file("other", TEXT);
    mj_download_dir_close(&s);
}

TEST("a directory in the place of a part or its note is refused, and stays")
{
    mj_download_dir s = shelf_of(0600);
    int before = open_fds();

    for (int k = 0; k < 2; k++) {
        mj_part p;
        CHECK_INT(mkdir(places[k], 0700), 0);
        CHECK_INT(mj_part_open(&s, "a", SOURCE, &p), MJ_EIO);
        CHECK_INT(errno, EISDIR);
        CHECK(p.fd == -1 && p.from == -1);
        CHECK_INT(rmdir(places[k]), 0);
    }
    CHECK_INT(open_fds(), before);
    mj_download_dir_close(&s);
}

TEST("links, pipes, sockets and directories in the place of a whole file are no file, and are not waited for")
{
    static void (*const make[])(const char *) = {link_to_file, link_to_nowhere, fifo, a_socket};
    mj_download_dir s = shelf_of(0600);
    uint8_t sha[32];
    int64_t bytes;
    int before = open_fds();

    put_file("precious", "precious", 8);
    for (size_t i = 0; i < sizeof make / sizeof make[0]; i++) {
        make[i]("kept/day/a.png");
        CHECK(mj_download_dir_hash(&s, "a.png", sha, &bytes) != MJ_OK);
        leave(&s, "a", ETAG, TEXT);
        mj_part p = part_of(&s, "a");
        CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK);
        check_file("kept/day/a.png", TEXT);
        CHECK_INT(unlink("kept/day/a.png"), 0);
    }
    check_file("precious", "precious");
    CHECK(!there("nowhere"));
    CHECK_INT(mkdir("kept/day/a.png", 0700), 0);
    CHECK_INT(mj_download_dir_hash(&s, "a.png", sha, &bytes), MJ_EIO);
    CHECK_INT(mj_download_dir_hash(&s, "none.png", sha, &bytes), MJ_ENOTFOUND);
    CHECK_INT(errno, ENOENT);
    CHECK_INT(open_fds(), before);
    mj_download_dir_close(&s);
}

/* ---- without root's rights ---- */

/* From here on permissions count. */
static void nobody(void)
{
    if (geteuid() == 0) {
        CHECK_INT(chown(".", 65534, 65534), 0);
        CHECK_INT(setresgid(65534, 65534, 65534), 0);
        CHECK_INT(setresuid(65534, 65534, 65534), 0);
        CHECK_INT(prctl(PR_SET_DUMPABLE, 1), 0); /* or /proc/self is root's */
    }
}

TEST("a part that became read-only before a crash is resumed")
{
    mj_download_dir s;
    mj_part p;
    uint8_t sha[32];
    int64_t bytes;

    nobody();
    s = shelf_of(0440);
    leave(&s, "a", ETAG, TEXT);
    CHECK_INT(chmod("kept/day/.a.part", 0440), 0); /* the last step before its name */
    p = part_of(&s, "a");
    CHECK_INT(p.have, strlen(TEXT));
    CHECK_INT(mode_of("kept/day/.a.part"), 0600);
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK);
    CHECK_INT(mode_of("kept/day/a.png"), 0440);
    leave(&s, "b", ETAG, TEXT); /* and the directory takes more */
    mj_download_dir_close(&s);
}

TEST("a read-only part belongs to the process that locks it")
{
    mj_download_dir s;
    mj_part p, q;

    nobody();
    s = shelf_of(0440);
    p = part_of(&s, "a");
    CHECK_INT(fchmod(p.fd, 0440), 0);
    CHECK_INT(mj_part_open(&s, "a", SOURCE, &q), MJ_EBUSY);
    CHECK_INT(mode_of("kept/day/.a.part"), 0440);
    mj_part_close(&p);
    mj_download_dir_close(&s);
}

TEST("where nothing may be written or read, it says so")
{
    mj_download_dir s;
    mj_part p;
    uint8_t sha[32];
    int64_t bytes;

    nobody();
    s = shelf_of(0600);
    CHECK_INT(chmod("kept/day", 0500), 0);
    CHECK_INT(mj_part_open(&s, "a", SOURCE, &p), MJ_EREADONLY);
    CHECK_INT(errno, EACCES);
    CHECK_INT(chmod("kept/day", 0700), 0);
    put_file("kept/day/a.png", "x", 1);
    CHECK_INT(chmod("kept/day/a.png", 0), 0);
    CHECK_INT(mj_download_dir_hash(&s, "a.png", sha, &bytes), MJ_EREADONLY);
    mj_download_dir_close(&s);
    CHECK_INT(chmod("kept", 0), 0);
    CHECK_INT(mj_download_dir_open(&s, "kept", "day", 0600), MJ_EREADONLY);
    CHECK_INT(chmod("kept", 0700), 0);
}

TEST("a directory whose parent may be written but not listed is made and synced all the same")
{
    mj_download_dir s;

    nobody();
    CHECK_INT(chmod(".", 0300), 0);
    s = shelf_of(0600);
    CHECK_INT(chmod("kept", 0300), 0);
    CHECK_INT(mj_download_dir_sync(&s), MJ_OK);
    mj_download_dir_close(&s);
    CHECK_INT(chmod(".", 0700), 0);
    CHECK_INT(chmod("kept", 0700), 0);
}

/* ---- others ---- */

TEST("a part that is locked, by this process or another, is busy, and free when that one is dead")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p;
    int ready[2], status;
    char c;
    pid_t pid;

    CHECK_INT(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        mj_part own = part_of(&s, "a");
        fill(&own, ETAG, TEXT);
        CHECK_INT(write(ready[1], "x", 1), 1);
        for (;;)
            pause();
    }
    CHECK_INT(read(ready[0], &c, 1), 1);
    CHECK_INT(mj_part_open(&s, "a", SOURCE, &p), MJ_EBUSY);
    CHECK(p.fd == -1 && p.from == -1);
    mj_part_drop(&s, &p);
    check_file("kept/day/.a.part", TEXT);
    CHECK_INT(resumes(&s, "b", SOURCE), 0); /* another one is not */
    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    p = part_of(&s, "a");
    CHECK_INT(p.have, strlen(TEXT));
    mj_part own;
    CHECK_INT(mj_part_open(&s, "a", SOURCE, &own), MJ_EBUSY);
    mj_part_close(&p);
    CHECK_INT(resumes(&s, "a", SOURCE), strlen(TEXT));
    mj_download_dir_close(&s);
}

static void kept_meanwhile(const char *name)
{
    if (strcmp(name, "flock") == 0 && there("kept/day/.a.part"))
        CHECK_INT(rename("kept/day/.a.part", "kept/day/a.png"), 0);
}

TEST("a part that gets its final name between opening and locking is not written to")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p;

    leave(&s, "a", ETAG, TEXT);
    watch();
    steps.before = kept_meanwhile; /* the first time: later there is no a.part of another's */
    CHECK_INT(mj_part_open(&s, "a", SOURCE, &p), MJ_EBUSY);
    watch();
    check_file("kept/day/a.png", ""); /* each of its tries had a new one taken away, none was kept open */
    mj_download_dir_close(&s);
}

static bool moved;

static void moved_once(const char *name)
{
    if (!moved && strcmp(name, "flock") == 0) {
        CHECK_INT(rename("kept/day/.a.part", "kept/day/a.png"), 0);
        moved = true;
    }
}

TEST("a part that was kept by another between opening and locking is begun anew")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p;

    leave(&s, "a", ETAG, TEXT);
    watch();
    steps.before = moved_once;
    CHECK_INT(mj_part_open(&s, "a", SOURCE, &p), MJ_OK);
    watch();
    CHECK_INT(p.have, 0); /* the note is of the bytes that went away */
    fill(&p, ETAG, "x");
    check_file("kept/day/a.png", TEXT);
    mj_part_close(&p);
    mj_download_dir_close(&s);
}

TEST("a part that was removed or replaced under its owner is not what gets the name")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p = part_of(&s, "a"), q;
    uint8_t sha[32];
    int64_t bytes;

    fill(&p, ETAG, TEXT);
    CHECK_INT(unlink("kept/day/.a.part"), 0);
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_ENOTFOUND);
    q = part_of(&s, "a"); /* another process begins */
    fill(&q, ETAG, "half");
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_EBUSY);
    CHECK(!there("kept/day/a.png"));
    mj_part_drop(&s, &p);
    CHECK_INT(mj_part_keep(&s, &q, "a.png", sha, &bytes), MJ_OK);
    check_file("kept/day/a.png", "half");
    mj_download_dir_close(&s);
}

enum { RACERS = 4, RACES = 150, LENGTH = 3000 };

/* Each tries for the part; who has it writes a file of one letter, in pieces, and keeps it or not. */
static void racer(const mj_download_dir *s, char letter, uint64_t seed)
{
    rng r = rng_of(seed);
    char text[LENGTH];
    int kept = 0;

    memset(text, letter, sizeof text);
    while (kept < RACES) {
        mj_part p;
        uint8_t sha[32];
        int64_t bytes;
        int rc = mj_part_open(s, "a", SOURCE, &p);
        if (rc == MJ_EBUSY)
            continue;
        CHECK_INT(rc, MJ_OK);
        CHECK_INT(ftruncate(p.fd, 0), 0);
        CHECK(lseek(p.fd, 0, SEEK_SET) == 0);
        CHECK_INT(mj_part_fresh(&p, ETAG), MJ_OK);
        for (int i = 0; i < LENGTH; i += 1000)
            CHECK_INT(write(p.fd, text + i, 1000), 1000);
        if (chance(&r, 10)) {
            mj_part_drop(s, &p);
        } else if (chance(&r, 10)) {
            mj_part_close(&p);
        } else {
            CHECK_INT(mj_part_keep(s, &p, "a.png", sha, &bytes), MJ_OK);
            CHECK_INT(bytes, LENGTH);
            kept++;
        }
    }
    exit(0);
}

TEST("of processes at one part each keeps its own file whole, and no reader ever sees another")
{
    mj_download_dir s = shelf_of(0600);
    pid_t pids[RACERS];
    int left = RACERS, looks = 0;

    for (int i = 0; i < RACERS; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0)
            racer(&s, (char)('a' + i), (uint64_t)i + 1);
    }
    while (left > 0) {
        char got[LENGTH + 10];
        int status;
        if (there("kept/day/a.png")) {
            size_t n = get_file("kept/day/a.png", got, sizeof got);
            CHECK_INT(n, LENGTH);
            CHECK_INT(strspn(got, (char[]){got[0], '\0'}), LENGTH);
            looks++;
        }
        while (left > 0 && waitpid(-1, &status, WNOHANG) > 0) {
            CHECK_INT(status, 0);
            left--;
        }
    }
    CHECK(looks > 10);
    CHECK(!there("kept/day/.a.part") || resumes(&s, "a", SOURCE) >= 0);
    mj_download_dir_close(&s);
}
