/* mj_download_dir: directories, parts that are gone on with or not, files that get their name at once.  What lies in
 * the place of its files is in shelf_place_test.c, deaths and full disks in shelf_death_test.c. */
#include "download_help.h"

static const char TEXT[] = "the bytes of an image", ETAG[] = "\"5f-1\"";

/* ---- directories ---- */

TEST("directories are made, users who may read the files may search them, their owner may always write")
{
    static const struct {
        unsigned mode, dir;
    } cases[] = {{0600, 0700}, {0640, 0750}, {0644, 0755}, {0604, 0705}, {0400, 0700}, {0440, 0750}, {0444, 0755}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mj_download_dir s;
        char top[30], sub[50];
        snprintf(top, sizeof top, "top-%zu", i);
        snprintf(sub, sizeof sub, "%s/2026-05-04", top);
        umask(i % 2 ? 0 : 077);
        CHECK_INT(mj_download_dir_open(&s, top, "2026-05-04", cases[i].mode), MJ_OK);
        CHECK_INT(mode_of(top), cases[i].dir);
        CHECK_INT(mode_of(sub), cases[i].dir);
        mj_download_dir_close(&s);
        CHECK_INT(s.fd, -1);
        mj_download_dir_close(&s);
    }
}

TEST("directories that are there stay as they are")
{
    mj_download_dir s;

    umask(0);
    CHECK_INT(mkdir("kept", 0711), 0);
    CHECK_INT(mkdir("kept/day", 0730), 0);
    s = shelf_of(0644);
    CHECK_INT(mode_of("kept"), 0711);
    CHECK_INT(mode_of("kept/day"), 0730);
    mj_download_dir_close(&s);
}

TEST("a directory that is made is synced into the one above it")
{
    mj_download_dir s;

    watch();
    s = shelf_of(0600);
    CHECK(synced("."));
    CHECK(synced("kept"));
    mj_download_dir_close(&s);
}

TEST("a sync makes the names in the directory last, and the directory's own, whichever process made it")
{
    mj_download_dir s;

    CHECK_INT(mkdir("kept", 0700), 0);
    CHECK_INT(mkdir("kept/day", 0700), 0);
    s = shelf_of(0600);
    watch();
    CHECK_INT(mj_download_dir_sync(&s), MJ_OK);
    CHECK(synced("kept/day"));
    CHECK(synced("kept"));
    watch();
    steps.refused = "fsync";
    steps.with = EIO;
    CHECK_INT(mj_download_dir_sync(&s), MJ_EIO);
    CHECK_INT(errno, EIO);
    steps.with = ENOSPC;
    CHECK_INT(mj_download_dir_sync(&s), MJ_ENOSPC);
    steps.with = EINVAL; /* of a file system that syncs no directories */
    CHECK_INT(mj_download_dir_sync(&s), MJ_OK);
    mj_download_dir_close(&s);
}

TEST("a directory that can't be had is told by its code, and nothing stays open")
{
    int before = open_fds();
    mj_download_dir s;

    CHECK_INT(mj_download_dir_open(&s, "none/kept", "day", 0600), MJ_ENOTFOUND);
    CHECK_INT(errno, ENOENT);
    CHECK_INT(s.fd, -1);
    put_file("file", "x", 1);
    CHECK_INT(mj_download_dir_open(&s, "file", "day", 0600), MJ_EIO);
    CHECK_INT(errno, ENOTDIR);
    CHECK_INT(mkdir("kept", 0700), 0);
    put_file("kept/day", "x", 1);
    CHECK_INT(mj_download_dir_open(&s, "kept", "day", 0600), MJ_EIO);
    CHECK_INT(errno, ENOTDIR);
    CHECK_INT(unlink("kept/day"), 0);
    watch();
    steps.refused = "mkdirat";
    steps.with = EROFS;
    CHECK_INT(mj_download_dir_open(&s, "kept", "day", 0600), MJ_EREADONLY);
    steps.with = EDQUOT;
    CHECK_INT(mj_download_dir_open(&s, "kept", "day", 0600), MJ_ENOSPC);
    steps.refused = "fsync";
    steps.with = EIO;
    CHECK_INT(mj_download_dir_open(&s, "kept", "day", 0600), MJ_EIO);
    CHECK_INT(errno, EIO);
    CHECK_INT(s.fd, -1);
    CHECK_INT(open_fds(), before);
}

TEST("a link to DIR is followed, one in the place of SUB is refused, and so are links to nowhere")
{
    mj_download_dir s;

    CHECK_INT(mkdir("elsewhere", 0700), 0);
    CHECK_INT(symlink("elsewhere", "kept"), 0);
    s = shelf_of(0600);
    CHECK(there("elsewhere/day"));
    mj_download_dir_close(&s);
    CHECK_INT(rmdir("elsewhere/day"), 0);
    CHECK_INT(mkdir("target", 0700), 0);
    CHECK_INT(symlink("../target", "elsewhere/day"), 0);
    CHECK(mj_download_dir_open(&s, "kept", "day", 0600) != MJ_OK);
    CHECK(errno == ENOTDIR || errno == ELOOP);
    CHECK_INT(unlink("elsewhere/day"), 0);
    CHECK_INT(symlink("../nowhere", "elsewhere/day"), 0);
    CHECK(mj_download_dir_open(&s, "kept", "day", 0600) != MJ_OK);
    CHECK_INT(symlink("nowhere", "other"), 0);
    CHECK(mj_download_dir_open(&s, "other", "day", 0600) != MJ_OK);
    CHECK(!there("nowhere"));
    CHECK_INT(entries("target"), 0);
}

/* ---- parts ---- */

TEST("a new part is two hidden files that no other user can read, with nothing to resume")
{
    mj_download_dir s = shelf_of(0644);
    mj_part p;

    umask(0);
    p = part_of(&s, "a-1");
    CHECK_INT(p.have, 0);
    CHECK_STR(p.etag, "");
    CHECK_INT(mode_of("kept/day/.a-1.part"), 0600);
    CHECK_INT(mode_of("kept/day/.a-1.from"), 0600);
    CHECK_INT(entries("kept/day"), 2);
    mj_part_close(&p);
    CHECK_INT(p.fd, -1);
    CHECK_INT(entries("kept/day"), 2);
    mj_part_close(&p);
    mj_download_dir_close(&s);
}

TEST("a part that is left is gone on with, from its last byte, with its ETag")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p;
    char got[40];

    leave(&s, "a", ETAG, TEXT);
    p = part_of(&s, "a");
    CHECK_INT(p.have, strlen(TEXT));
    CHECK_STR(p.etag, ETAG);
    CHECK_INT(pread(p.fd, got, sizeof got, 0), (ssize_t)strlen(TEXT));
    CHECK_MEM(got, TEXT, strlen(TEXT));
    mj_part_close(&p);
    CHECK_INT(resumes(&s, "a", SOURCE), strlen(TEXT));
    CHECK_INT(resumes(&s, "b", SOURCE), 0); /* of another name */
    mj_download_dir_close(&s);
}

TEST("a part from another source is not resumed")
{
    mj_download_dir s = shelf_of(0600);
    uint8_t near[32];

    leave(&s, "a", ETAG, TEXT);
    CHECK_INT(resumes(&s, "a", OTHER), 0);
    memcpy(near, SOURCE, 32);
    near[31] ^= 1;
    CHECK_INT(resumes(&s, "a", near), 0);
    CHECK_INT(resumes(&s, "a", SOURCE), strlen(TEXT));
    mj_download_dir_close(&s);
}

TEST("a part whose ETag is weak, missing, no ETag or too long is not resumed")
{
    static const char *const none[] = {
        "",         "\"",        "W/\"5f\"",      "w/\"5f\"", "5f",       "\"5f",
        "5f\"",     "'5f'",      "\"5\"f\"",      "\"5 f\"",  "\"5\tf\"", "\"5\rf\"",
        "\"5\nf\"", "\"5\x7f\"", "\"5\xc3\xa4\"", " \"5f\"",  "\"5f\" ",  "\"5f\", \"6f\"",
    };
    static const char *const good[] = {"\"\"", "\"5f\"", "\"!#~\\/\"", "\"'\""};
    mj_download_dir s = shelf_of(0600);
    char longest[MJ_MAX_ETAG + 3];

    leave(&s, "a", NULL, TEXT);
    CHECK_INT(resumes(&s, "a", SOURCE), 0);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        leave(&s, "a", none[i], TEXT);
        if (resumes(&s, "a", SOURCE) != 0)
            MJ_TEST_FAIL("goes on by the ETag %s", none[i]);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        leave(&s, "a", good[i], TEXT);
        CHECK_INT(resumes(&s, "a", SOURCE), strlen(TEXT));
    }
    memset(longest, 'x', sizeof longest);
    longest[0] = longest[MJ_MAX_ETAG - 1] = '"';
    longest[MJ_MAX_ETAG] = '\0';
    leave(&s, "a", longest, TEXT);
    CHECK_INT(resumes(&s, "a", SOURCE), strlen(TEXT));
    longest[MJ_MAX_ETAG - 1] = 'x';
    longest[MJ_MAX_ETAG] = '"';
    longest[MJ_MAX_ETAG + 1] = '\0';
    leave(&s, "a", longest, TEXT);
    CHECK_INT(resumes(&s, "a", SOURCE), 0);
    mj_download_dir_close(&s);
}

TEST("a part of an earlier boot is not resumed")
{
    mj_download_dir s = shelf_of(0600);
    char note[600];
    size_t n;

    leave(&s, "a", ETAG, TEXT);
    n = get_file("kept/day/.a.from", note, sizeof note);
    CHECK(strncmp(note, "mjhook-part 1 ", 14) == 0);
    for (int i = 14; i < 14 + 32; i++) { /* the boot's 32 digits, each of which counts */
        char was = note[i];
        note[i] = was == '0' ? '1' : '0';
        put_file("kept/day/.a.from", note, n);
        CHECK_INT(resumes(&s, "a", SOURCE), 0);
        note[i] = was;
    }
    put_file("kept/day/.a.from", note, n);
    CHECK_INT(resumes(&s, "a", SOURCE), strlen(TEXT));
    mj_download_dir_close(&s);
}

TEST("a note that broke off anywhere, or has more in it, is no note")
{
    mj_download_dir s = shelf_of(0600);
    char note[600];
    size_t n;

    leave(&s, "a", ETAG, TEXT);
    n = get_file("kept/day/.a.from", note, sizeof note);
    for (size_t cut = 0; cut < n; cut++) {
        put_file("kept/day/.a.from", note, cut);
        CHECK_INT(resumes(&s, "a", SOURCE), 0);
    }
    for (size_t at = 0; at < n; at++) { /* a block of zeros, as file systems leave it */
        char torn[600] = {0};
        memcpy(torn, note, at);
        put_file("kept/day/.a.from", torn, n);
        CHECK_INT(resumes(&s, "a", SOURCE), 0);
        torn[n - 1] = '\n';
        put_file("kept/day/.a.from", torn, n);
        CHECK_INT(resumes(&s, "a", SOURCE), at == n - 1 ? (int64_t)strlen(TEXT) : 0);
    }
    memcpy(note + n, "\n", 1);
    put_file("kept/day/.a.from", note, n + 1);
    CHECK_INT(resumes(&s, "a", SOURCE), 0);
    memcpy(note + n, note, n);
    put_file("kept/day/.a.from", note, 2 * n);
    CHECK_INT(resumes(&s, "a", SOURCE), 0);
    mj_download_dir_close(&s);
}

TEST("a note with a NUL in it, however long, is no note and overwrites nothing")
{
    mj_download_dir s = shelf_of(0600);
    char note[600];
    size_t n;
    mj_part p;

    leave(&s, "a", ETAG, TEXT);
    n = get_file("kept/day/.a.from", note, sizeof note) - 1;
    for (size_t end = n + 2; end < sizeof note; end++) {
        memset(note + n, 'x', sizeof note - n);
        note[n] = '\0';
        note[end - 1] = '\n';
        put_file("kept/day/.a.from", note, end);
        p = part_of(&s, "a");
        CHECK_INT(p.have, 0);
        CHECK_STR(p.etag, "");
        CHECK_MEM(p.source, SOURCE, 32);
        CHECK_STR(p.name, "a");
        mj_part_close(&p);
    }
    mj_download_dir_close(&s);
}

TEST("a part that starts over forgets what it was of, before the first new byte")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p;

    leave(&s, "a", ETAG, TEXT);
    p = part_of(&s, "a");
    CHECK_INT(ftruncate(p.fd, 0), 0);
    CHECK_INT(mj_part_fresh(&p, "\"other\""), MJ_OK);
    CHECK_INT(p.have, 0);
    CHECK_STR(p.etag, "");
    CHECK_INT(write(p.fd, "x", 1), 1);
    mj_part_close(&p);
    p = part_of(&s, "a");
    CHECK_INT(p.have, 1);
    CHECK_STR(p.etag, "\"other\"");
    CHECK_INT(ftruncate(p.fd, 0), 0);
    CHECK_INT(mj_part_fresh(&p, NULL), MJ_OK);
    check_file("kept/day/.a.from", "");
    mj_part_close(&p);
    mj_download_dir_close(&s);
}

TEST("a note that can't be written is a failure, and none is left that could be believed")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p;

    leave(&s, "a", ETAG, TEXT);
    p = part_of(&s, "a");
    watch();
    steps.refused = "write";
    steps.with = ENOSPC;
    CHECK_INT(mj_part_fresh(&p, ETAG), MJ_ENOSPC);
    steps.refused = "ftruncate";
    steps.with = EIO;
    CHECK_INT(mj_part_fresh(&p, ETAG), MJ_EIO);
    mj_part_close(&p);
    watch();
    CHECK_INT(resumes(&s, "a", SOURCE), 0);
    mj_download_dir_close(&s);
}

TEST("names of the longest kind work")
{
    mj_download_dir s = shelf_of(0600);
    char name[MJ_DOWNLOAD_NAME + 1], path[MJ_DOWNLOAD_NAME + 40];
    uint8_t sha[32];
    int64_t bytes;
    mj_part p;

    memset(name, 'n', MJ_DOWNLOAD_NAME);
    name[MJ_DOWNLOAD_NAME] = '\0';
    leave(&s, name, ETAG, TEXT);
    snprintf(path, sizeof path, "kept/day/.%s.part", name);
    CHECK(there(path));
    snprintf(path, sizeof path, "kept/day/.%s.from", name);
    CHECK(there(path));
    p = part_of(&s, name);
    CHECK_INT(p.have, strlen(TEXT));
    CHECK_STR(p.name, name);
    CHECK_INT(mj_part_keep(&s, &p, name, sha, &bytes), MJ_OK);
    CHECK_INT(entries("kept/day"), 1);
    snprintf(path, sizeof path, "kept/day/%s", name);
    check_file(path, TEXT);
    mj_download_dir_close(&s);
}

TEST("what is dropped is gone; what was kept or dropped before can't be dropped")
{
    mj_download_dir s = shelf_of(0600);
    uint8_t sha[32];
    int64_t bytes;
    mj_part p = part_of(&s, "a"), q;

    fill(&p, ETAG, TEXT);
    mj_part_drop(&s, &p);
    CHECK_INT(p.fd, -1);
    CHECK_INT(entries("kept/day"), 0);
    q = part_of(&s, "a");
    fill(&q, ETAG, TEXT);
    mj_part_drop(&s, &p); /* the name is another's now */
    CHECK_INT(entries("kept/day"), 2);
    CHECK_INT(mj_part_keep(&s, &q, "a.png", sha, &bytes), MJ_OK);
    leave(&s, "a", ETAG, TEXT);
    mj_part_drop(&s, &q);
    CHECK_INT(entries("kept/day"), 3);
    mj_download_dir_close(&s);
}

/* ---- whole files ---- */

TEST("what is kept has its name, hash, length and mode, is synced before, and leaves nothing beside it")
{
    static const unsigned modes[] = {0600, 0640, 0644, 0400, 0444};

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        mj_download_dir s = shelf_of(modes[i]);
        mj_part p = part_of(&s, "a-1");
        uint8_t sha[32], want[32];
        int64_t bytes = -1;
        struct stat st;
        fill(&p, ETAG, TEXT);
        CHECK_INT(fstat(p.fd, &st), 0);
        umask(i % 2 ? 0 : 077);
        watch();
        CHECK_INT(mj_part_keep(&s, &p, "a-1.png", sha, &bytes), MJ_OK);
        CHECK_INT(p.fd, -1);
        CHECK_INT(p.from, -1);
        CHECK_INT(bytes, strlen(TEXT));
        CHECK_INT(mj_sha256(TEXT, strlen(TEXT), want), MJ_OK);
        CHECK_MEM(sha, want, 32);
        CHECK_INT(mode_of("kept/day/a-1.png"), modes[i]);
        check_file("kept/day/a-1.png", TEXT);
        CHECK_INT(entries("kept/day"), 1);
        CHECK(taken("fchmod", 0) >= 0);
        CHECK(taken("fsync", taken("fchmod", 0)) > 0); /* the mode lasts as well */
        CHECK(steps.synced[taken("fsync", 0)] == st.st_ino);
        CHECK(taken("renameat", 0) > taken("fsync", 0));
        mj_download_dir_close(&s);
    }
}

TEST("what is kept replaces a file in one step: a reader of the old one keeps it")
{
    mj_download_dir s = shelf_of(0600);
    mj_part p = part_of(&s, "a");
    uint8_t sha[32];
    int64_t bytes;
    char got[10];
    int old;

    put_file("kept/day/a.png", "old", 3);
    old = open("kept/day/a.png", O_RDONLY);
    fill(&p, ETAG, TEXT);
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK);
    CHECK_INT(read(old, got, sizeof got), 3);
    check_file("kept/day/a.png", TEXT);
    close(old);
    mj_download_dir_close(&s);
}

TEST("a file's hash and length are those of its bytes, at and around the size of a chunk")
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 200000};
    static char data[200000];
    mj_download_dir s = shelf_of(0600);

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7 + i / 251);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t sha[32], want[32];
        int64_t bytes = -1;
        put_file("kept/day/a.png", data, sizes[i]);
        CHECK_INT(mj_download_dir_hash(&s, "a.png", sha, &bytes), MJ_OK);
        CHECK_INT(bytes, sizes[i]);
        CHECK_INT(mj_sha256(data, sizes[i], want), MJ_OK);
        CHECK_MEM(sha, want, 32);
    }
    mj_download_dir_close(&s);
}

TEST("a file that can't be kept is a part as before, and can be kept later")
{
    static const struct {
        const char *step;
        int with, code;
    } cases[] = {{"fchmod", EPERM, MJ_EREADONLY},
                 {"fsync", EIO, MJ_EIO},
                 {"fsync", ENOSPC, MJ_ENOSPC},
                 {"renameat", EDQUOT, MJ_ENOSPC},
                 {"renameat", EROFS, MJ_EREADONLY}};
    mj_download_dir s = shelf_of(0600);
    mj_part p = part_of(&s, "a");
    uint8_t sha[32];
    int64_t bytes;

    fill(&p, ETAG, TEXT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        watch();
        steps.refused = cases[i].step;
        steps.with = cases[i].with;
        CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), cases[i].code);
        CHECK_INT(errno, cases[i].with);
        CHECK(p.fd >= 0 && p.from >= 0);
        CHECK(!there("kept/day/a.png"));
        CHECK(there("kept/day/.a.part") && there("kept/day/.a.from"));
    }
    watch();
    CHECK_INT(mkdir("kept/day/a.png", 0700), 0);
    CHECK(mj_part_keep(&s, &p, "a.png", sha, &bytes) != MJ_OK);
    CHECK_INT(rmdir("kept/day/a.png"), 0);
    CHECK_INT(mj_part_keep(&s, &p, "a.png", sha, &bytes), MJ_OK);
    check_file("kept/day/a.png", TEXT);
    CHECK_INT(entries("kept/day"), 1);
    mj_download_dir_close(&s);
}
