/* mj_download_dir: processes that die at each of its steps, disks that run full. */
#include "download_help.h"

#include <sched.h>
#include <sys/mount.h>

static const char ETAG[] = "\"5f-1\"", OLD[] = "\"old\"";
static char image[5000], other[3000];

static void make_images(void)
{
    memset(image, 'i', sizeof image - 1);
    memset(other, 'o', sizeof other - 1);
}

/* Gets the image into the directory, as a download does: resumed where possible, and in pieces. */
static void fetch(unsigned mode)
{
    mj_download_dir s = shelf_of(mode);
    mj_part p = part_of(&s, "a");
    uint8_t sha[32], want[32];
    int64_t bytes;

    if (p.have == 0 || strcmp(p.etag, ETAG) != 0) {
        CHECK_INT(ftruncate(p.fd, 0), 0);
        CHECK_INT(mj_part_fresh(&p, ETAG), MJ_OK);
        p.have = 0;
    }
    CHECK(p.have <= (int64_t)strlen(image));
    CHECK(lseek(p.fd, p.have, SEEK_SET) == p.have);
    while (p.have < (int64_t)strlen(image)) {
        size_t n = strlen(image) - (size_t)p.have;
        ssize_t w = write(p.fd, image + p.have, n < 1000 ? n : 1000);
        CHECK(w > 0);
        p.have += w;
    }
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK);
    CHECK_INT(mj_sha256(image, strlen(image), want), MJ_OK);
    CHECK_MEM(sha, want, 32);
    CHECK_INT(mj_download_dir_sync(&s), MJ_OK);
    mj_download_dir_close(&s);
}

/* The process that dies before its n-th step.  False: it came to its end before that. */
static bool dies_at(int n, unsigned mode)
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        watch();
        steps.last = n;
        fetch(mode);
        exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == DIED);
    return WEXITSTATUS(status) == DIED;
}

static int deaths(void (*before)(void), unsigned mode)
{
    int n = 0;

    do {
        static char got[6000];
        n++;
        if (system("rm -rf kept") != 0) /* NOLINT(cert-env33-c) */
            MJ_TEST_FAIL("can't clean up");
        if (before)
            before();
        bool died = dies_at(n, mode);
        if (there("kept/day/a.png")) {
            get_file("kept/day/a.png", got, sizeof got);
            CHECK_STR(got, image);
            CHECK_INT(mode_of("kept/day/a.png"), mode);
        } else {
            CHECK(died);
        }
        if (!died)
            return n;
        fetch(mode); /* the next one needs no repair */
        check_file("kept/day/a.png", image);
        CHECK_INT(mode_of("kept/day/a.png"), mode);
        CHECK_INT(entries("kept/day"), 1);
    } while (n < MAX_STEPS);
    MJ_TEST_FAIL("no end");
}

TEST("a death at any step leaves no file or the whole one, and the next try gets it whole")
{
    make_images();
    CHECK(deaths(NULL, 0644) > 15);
}

static void left_by_another(void)
{
    mj_download_dir s = shelf_of(0600);

    leave(&s, "a", OLD, other);
    mj_download_dir_close(&s);
}

TEST("a death at any step of starting over mixes no two images")
{
    make_images();
    CHECK(deaths(left_by_another, 0600) > 12);
}

static void left_by_itself(void)
{
    mj_download_dir s = shelf_of(0600);
    char half[2001];

    snprintf(half, sizeof half, "%.2000s", image);
    leave(&s, "a", ETAG, half);
    mj_download_dir_close(&s);
}

TEST("a death at any step of going on loses nothing")
{
    make_images();
    CHECK(deaths(left_by_itself, 0600) > 8);
}

/* ---- full disks ---- */

TEST("a disk that runs full fails by that name, and the part is gone on with when there is room again")
{
    static char block[65536];
    mj_download_dir s;
    mj_part p, q;
    uint8_t sha[32];
    int64_t bytes;
    int rc = MJ_OK;

    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") != 0 ||
        mkdir("kept", 0700) != 0 || mount("tmpfs", "kept", "tmpfs", 0, "size=1m,nr_inodes=20,mode=700") != 0)
        SKIP("a tmpfs can't be mounted here");
    s = shelf_of(0600);
    p = part_of(&s, "a");
    q = part_of(&s, "b"); /* its note has no block yet */
    fill(&p, ETAG, "");
    while (write(p.fd, block, sizeof block) > 0)
        continue;
    CHECK_INT(errno, ENOSPC);
    CHECK_INT(mj_part_fresh(&q, ETAG), MJ_ENOSPC);
    mj_part_close(&q);
    CHECK_INT(resumes(&s, "b", SOURCE), 0);
    for (char name[] = "c"; rc == MJ_OK && name[0] < 'z'; name[0]++) /* and no inodes */
        if ((rc = mj_part_open(&s, name, SOURCE, &q)) == MJ_OK)
            mj_part_close(&q);
    CHECK_INT(rc, MJ_ENOSPC);
    CHECK(q.fd == -1 && q.from == -1);
    mj_part_close(&p);
    p = part_of(&s, "a");
    CHECK(p.have > 100000);
    CHECK_STR(p.etag, ETAG);
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK); /* that takes no room */
    mj_download_dir_close(&s);
}
