/* mj_file: what is read of files that decide something, and how whole files are written. */
#include "mj_test.h"

#include "base/error.h"
#include "os/file.h"

#include <sys/sysmacros.h>

static char why[MJ_FILE_WHY];

static void put(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK_INT(fchmod(fd, mode), 0);
    close(fd);
}

static unsigned mode_of(const char *path)
{
    struct stat st;

    CHECK_INT(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

/* Whether the file is read, as what it holds. */
static int reads(const char *path, mj_file_kind kind, const char *text)
{
    mj_buf b = {0};
    int rc = mj_file_read(path, kind, 1000, &b, why);

    if (rc == MJ_OK) {
        CHECK_INT(b.n, strlen(text));
        CHECK(memcmp(b.p, text, b.n) == 0);
    }
    mj_buf_free(&b);
    return rc;
}

static bool holds(const char *path, const char *text)
{
    char got[100] = "";
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, got, sizeof got - 1);

    close(fd);
    return n == (ssize_t)strlen(text) && strcmp(got, text) == 0;
}

/* Files in the working directory. */
static int count_files(void)
{
    FILE *ls = popen("ls -A | wc -l", "r");
    int n = -1;

    CHECK(ls && fscanf(ls, "%d", &n) == 1);
    pclose(ls);
    return n;
}

/* ---- reading ---- */

TEST("a file is read by an absolute or a relative path, through links and \"..\"")
{
    char here[PATH_MAX], path[PATH_MAX + 20];

    umask(022);
    CHECK(getcwd(here, sizeof here));
    mkdir("etc", 0755);
    mkdir("other", 0755);
    put("etc/config", "text", 0644);
    snprintf(path, sizeof path, "%s/etc", here);
    CHECK_INT(symlink("../etc/config", "other/link"), 0);
    CHECK_INT(symlink(path, "absolute"), 0);
    snprintf(path, sizeof path, "%s/./etc//config", here);
    CHECK_INT(reads(path, MJ_FILE_CODE, "text"), MJ_OK);
    CHECK_INT(reads("etc/config", MJ_FILE_CODE, "text"), MJ_OK);
    CHECK_INT(reads("etc/../etc/config", MJ_FILE_CODE, "text"), MJ_OK);
    CHECK_INT(reads("other/link", MJ_FILE_CODE, "text"), MJ_OK);
    CHECK_INT(reads("absolute/config", MJ_FILE_CODE, "text"), MJ_OK);
    put("empty", "", 0600);
    CHECK_INT(reads("empty", MJ_FILE_SECRET, ""), MJ_OK);
}

TEST("a directory of the path that others can write is named, with what to do")
{
    static const mode_t bad[] = {0777, 0775, 0757, 0722, 0702};

    umask(0);
    mkdir("a", 0755);
    mkdir("a/b", 0755);
    put("a/b/f", "x", 0600);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        chmod("a", bad[i]);
        CHECK_INT(reads("a/b/f", MJ_FILE_CODE, "x"), MJ_EINVAL);
        CHECK(strstr(why, "/a can be written") && strstr(why, "chmod go-w"));
        CHECK_INT(reads("a/b/f", MJ_FILE_SECRET, "x"), MJ_EINVAL);
        chmod("a", 0755);
        CHECK_INT(reads("a/b/f", MJ_FILE_CODE, "x"), MJ_OK);
    }
}

TEST("a link is no way round: the directories that it leads through are checked, and the one that holds it")
{
    umask(0);
    mkdir("open", 0777);
    mkdir("mine", 0755);
    put("open/f", "x", 0600);
    put("mine/f", "x", 0600);
    CHECK_INT(symlink("../open/f", "mine/to-open"), 0);
    CHECK_INT(symlink("../mine", "open/to-mine"), 0);
    CHECK_INT(reads("mine/to-open", MJ_FILE_CODE, "x"), MJ_EINVAL);
    CHECK(strstr(why, "/open can be written"));
    CHECK_INT(reads("open/to-mine/f", MJ_FILE_CODE, "x"), MJ_EINVAL);
    CHECK_INT(reads("open/../mine/f", MJ_FILE_CODE, "x"), MJ_EINVAL);
}

TEST("of directories that all may write to, only sticky ones of root's pass")
{
    umask(0);
    if (geteuid() != 0)
        SKIP("only root can make directories of root's");
    mkdir("tmp", 0777);
    chmod("tmp", 01777);
    put("tmp/f", "x", 0600);
    CHECK_INT(reads("tmp/f", MJ_FILE_CODE, "x"), MJ_OK);
    CHECK_INT(symlink("f", "tmp/link"), 0);
    CHECK_INT(reads("tmp/link", MJ_FILE_CODE, "x"), MJ_OK);
    CHECK_INT(lchown("tmp/link", 65534, 65534), 0);
    CHECK_INT(reads("tmp/link", MJ_FILE_CODE, "x"), MJ_EINVAL);
    CHECK(strstr(why, "tmp/link belongs to uid 65534"));
    CHECK_INT(chown("tmp", 65534, 65534), 0);
    CHECK_INT(reads("tmp/f", MJ_FILE_CODE, "x"), MJ_EINVAL);
    CHECK(strstr(why, "/tmp belongs to uid 65534"));
}

TEST("a file that others can write, or that is another user's, is not read")
{
    static const mode_t bad[] = {0620, 0602, 0666, 0660};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put("f", "x", bad[i]);
        CHECK_INT(reads("f", MJ_FILE_CODE, "x"), MJ_EINVAL);
        CHECK_INT(reads("f", MJ_FILE_SECRET, "x"), MJ_EINVAL);
        CHECK(strstr(why, "chmod"));
    }
    put("f", "x", 0600);
    if (geteuid() == 0) {
        CHECK_INT(chown("f", 65534, 65534), 0);
        CHECK_INT(reads("f", MJ_FILE_CODE, "x"), MJ_EINVAL);
        CHECK(strstr(why, "belongs to uid 65534"));
        CHECK_INT(reads("f", MJ_FILE_SECRET, "x"), MJ_OK); /* the doctor warns */
        umask(0);
        mkdir("tmp", 0777);
        chmod("tmp", 01777);
        CHECK_INT(rename("f", "tmp/f"), 0);
        CHECK_INT(reads("tmp/f", MJ_FILE_SECRET, "x"), MJ_EINVAL); /* anybody may have put it there */
    }
}

TEST("a secret that every user can read is refused, unless it is read-only and its directory keeps others out")
{
    char public[] = "/tmp/mj-file-XXXXXX"; /* the test's own directory may be in a private one */

    umask(0);
    CHECK(mkdtemp(public) && chmod(public, 0755) == 0 && chdir(public) == 0);
    mkdir("run", 0755);
    mkdir("run/secrets", 0755);
    put("run/secrets/key", "k", 0444);
    CHECK_INT(reads("run/secrets/key", MJ_FILE_CODE, "k"), MJ_OK);
    CHECK_INT(reads("run/secrets/key", MJ_FILE_SECRET, "k"), MJ_EINVAL);
    CHECK(strstr(why, "run/secrets/key can be read") && strstr(why, "chmod 600"));
    chmod("run/secrets", 0700);
    CHECK_INT(reads("run/secrets/key", MJ_FILE_SECRET, "k"), MJ_OK);
    chmod("run/secrets/key", 0644); /* a file of somebody who can mend its mode */
    CHECK_INT(reads("run/secrets/key", MJ_FILE_SECRET, "k"), MJ_EINVAL);
    CHECK(!strstr(why, "directory"));
    chmod("run/secrets/key", 0444);
    chmod("run/secrets", 0710);
    CHECK_INT(reads("run/secrets/key", MJ_FILE_SECRET, "k"), MJ_OK);
    chmod("run/secrets", 0711);
    CHECK_INT(reads("run/secrets/key", MJ_FILE_SECRET, "k"), MJ_EINVAL);
    chmod("run/secrets", 0755);
    chmod("run", 0750);
    CHECK_INT(reads("run/secrets/key", MJ_FILE_SECRET, "k"), MJ_OK);
    mkdir("closed", 0700);
    CHECK_INT(symlink("../run/secrets/key", "closed/key"), 0);
    CHECK_INT(reads("closed/key", MJ_FILE_SECRET, "k"), MJ_OK);
    chmod("run", 0755); /* the link's directory is closed, the file's is not */
    CHECK_INT(reads("closed/key", MJ_FILE_SECRET, "k"), MJ_EINVAL);
    CHECK_INT(reads("closed/../run/secrets/key", MJ_FILE_SECRET, "k"), MJ_EINVAL);
    CHECK(chdir("/") == 0 && strlen(public) == 19);
    snprintf(why, sizeof why, "rm -rf %s", public);
    CHECK_INT(system(why), 0);
}

TEST("only regular files are read, and none blocks")
{
    umask(022);
    mkdir("d", 0755);
    CHECK_INT(mkfifo("fifo", 0600), 0);
    CHECK_INT(symlink("loop", "loop"), 0);
    CHECK_INT(symlink("nowhere", "dangling"), 0);
    put("f", "x", 0600);
    CHECK_INT(reads("d", MJ_FILE_CODE, ""), MJ_EINVAL);
    CHECK(strstr(why, "directory"));
    CHECK_INT(reads("fifo", MJ_FILE_CODE, ""), MJ_EINVAL);
    CHECK(strstr(why, "FIFO"));
    CHECK_INT(reads("/dev/null", MJ_FILE_CODE, ""), MJ_EINVAL);
    CHECK_INT(reads("loop", MJ_FILE_CODE, ""), MJ_EIO);
    CHECK_INT(reads("dangling", MJ_FILE_CODE, ""), MJ_ENOTFOUND);
    CHECK_INT(reads("nowhere/f", MJ_FILE_CODE, ""), MJ_ENOTFOUND);
    CHECK_INT(reads("", MJ_FILE_CODE, ""), MJ_EIO);
    CHECK(reads("f/x", MJ_FILE_CODE, "") != MJ_OK);
    CHECK(reads("f/", MJ_FILE_CODE, "") != MJ_OK);
    CHECK_INT(reads("/", MJ_FILE_CODE, ""), MJ_EINVAL);
}

TEST("a file that is too large is an error, and so is a path")
{
    static char text[1001], path[PATH_MAX + 10];
    char ok[1001];

    memset(text, 'x', 1000);
    put("f", text, 0600);
    CHECK_INT(reads("f", MJ_FILE_CODE, text), MJ_OK);
    memset(ok, 'x', sizeof ok);
    put("f", "", 0600);
    CHECK(mj_file_write("f", ok, sizeof ok, 0600, why) == MJ_OK);
    CHECK_INT(reads("f", MJ_FILE_CODE, ""), MJ_ELIMIT);
    memset(path, 'p', sizeof path - 1);
    CHECK_INT(reads(path, MJ_FILE_CODE, ""), MJ_EIO);
}

/* ---- writing ---- */

TEST("a file is written as a whole, with the mode that was asked for, whatever the umask")
{
    static const mode_t masks[] = {0, 022, 077, 0777};
    static const unsigned modes[] = {0600, 0640, 0644, 0660};

    for (size_t m = 0; m < 4; m++)
        for (size_t i = 0; i < 4; i++) {
            umask(masks[m]);
            CHECK_INT(mj_file_write("f", "new text", 8, modes[i], why), MJ_OK);
            CHECK(holds("f", "new text"));
            CHECK_INT(mode_of("f"), modes[i]);
            CHECK_INT(count_files(), 1);
        }
}

TEST("what is no regular file is neither written to nor replaced, and named")
{
    static const char *const names[] = {"link", "dangling", "fifo", "d", "d/", ".", "..", "d/.", "", "device"};
    struct stat st;

    umask(022);
    put("data.mdb", "the store", 0600);
    CHECK_INT(symlink("data.mdb", "link"), 0);
    CHECK_INT(symlink("nowhere", "dangling"), 0);
    CHECK_INT(mkfifo("fifo", 0600), 0);
    mkdir("d", 0755);
    if (mknod("device", S_IFCHR | 0600, makedev(1, 3)) != 0) /* never the machine's own: broken code would replace it */
        CHECK_INT(mkfifo("device", 0600), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        why[0] = '\0';
        CHECK_INT(mj_file_write(names[i], "x", 1, 0644, why), MJ_EINVAL);
        CHECK(strstr(why, names[i]) && strlen(why) > 20);
    }
    CHECK(holds("data.mdb", "the store"));
    CHECK(lstat("link", &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(lstat("fifo", &st) == 0 && S_ISFIFO(st.st_mode));
    CHECK(lstat("device", &st) == 0 && !S_ISREG(st.st_mode));
    CHECK_INT(count_files(), 6);
}

TEST("a name that was planted beside the file is not written through")
{
    umask(022);
    put("victim", "precious", 0600);
    CHECK_INT(symlink("victim", "f.tmp"), 0);
    CHECK_INT(symlink("victim", ".f.tmp"), 0);
    CHECK_INT(mj_file_write("f", "x", 1, 0644, why), MJ_OK);
    CHECK(holds("victim", "precious"));
    CHECK(holds("f", "x"));
}

TEST("another name of the replaced file keeps the old content")
{
    put("f", "old", 0600);
    CHECK_INT(link("f", "other"), 0);
    CHECK_INT(mj_file_write("f", "new", 3, 0644, why), MJ_OK);
    CHECK(holds("other", "old"));
    CHECK_INT(mode_of("other"), 0600);
}

TEST("a fresh file does not replace one that came meanwhile, and leaves nothing behind")
{
    mj_file f;

    CHECK_INT(mj_file_begin(&f, "f", 0640, why), MJ_OK);
    CHECK(mj_write_all(f.fd, "mine", 4));
    put("f", "theirs", 0600);
    CHECK_INT(mj_file_commit(&f, true, why), MJ_EEXISTS);
    CHECK(strstr(why, "f: "));
    CHECK(holds("f", "theirs"));
    CHECK_INT(count_files(), 1);
    CHECK_INT(unlink("f"), 0);
    CHECK_INT(mj_file_begin(&f, "f", 0640, why), MJ_OK);
    CHECK(mj_write_all(f.fd, "mine", 4));
    CHECK_INT(mj_file_commit(&f, true, why), MJ_OK);
    CHECK(holds("f", "mine"));
    CHECK_INT(mode_of("f"), 0640);
    CHECK_INT(count_files(), 1);
}

TEST("a file that was begun and abandoned leaves the old one and nothing else")
{
    mj_file f;

    put("f", "old", 0600);
    CHECK_INT(mj_file_begin(&f, "f", 0644, why), MJ_OK);
    CHECK_INT(count_files(), 2);
    CHECK(holds("f", "old"));
    mj_file_abandon(&f);
    mj_file_abandon(&f);
    CHECK(holds("f", "old"));
    CHECK_INT(count_files(), 1);
}

TEST("a directory that is missing, and a name as long as names may be")
{
    char name[256];

    memset(name, 'n', 255);
    name[255] = '\0';
    CHECK_INT(mj_file_write("nowhere/f", "x", 1, 0644, why), MJ_ENOTFOUND);
    CHECK_INT(mj_file_write(name, "x", 1, 0644, why), MJ_OK);
    CHECK(holds(name, "x"));
}

TEST("a log is appended to; a new one gets its mode, one that is there keeps its own")
{
    umask(077);
    CHECK_INT(mj_file_append("log", "one\n", 4, 0640, why), MJ_OK);
    CHECK_INT(mode_of("log"), 0640);
    CHECK_INT(chmod("log", 0600), 0);
    CHECK_INT(mj_file_append("log", "two\n", 4, 0640, why), MJ_OK);
    CHECK(holds("log", "one\ntwo\n"));
    CHECK_INT(mode_of("log"), 0600);
}

TEST("nothing is appended to a link, a directory, a FIFO, with or without a reader")
{
    static const char *const names[] = {"link", "dangling", "d", "fifo"};
    int reader = -1;

    put("data.mdb", "the store", 0600);
    CHECK_INT(symlink("data.mdb", "link"), 0);
    CHECK_INT(symlink("nowhere", "dangling"), 0);
    mkdir("d", 0755);
    CHECK_INT(mkfifo("fifo", 0600), 0);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            why[0] = '\0';
            CHECK_INT(mj_file_append(names[i], "x", 1, 0640, why), MJ_EINVAL);
            CHECK(strstr(why, names[i]) && strstr(why, "not written"));
        }
        reader = open("fifo", O_RDONLY | O_NONBLOCK);
        CHECK(reader >= 0);
    }
    CHECK(holds("data.mdb", "the store"));
    CHECK(access("nowhere", F_OK) != 0);
    CHECK_INT(mj_file_append("nowhere/log", "x", 1, 0640, why), MJ_ENOTFOUND);
    CHECK_INT(mj_file_append("/dev/full", "x", 1, 0640, why), MJ_ENOSPC);
}
