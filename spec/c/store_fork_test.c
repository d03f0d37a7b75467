/* Several handles of one process, and handles across forks. */
#include "store_check.h"

TEST("two handles of one process are one store, and closing one leaves the other")
{
    mj_store *a = open_store(), *b = open_store_at("../dir/store", &(mj_store_options){.rules = mj_rules_default});
    ref r = add(a, (job){0}, T0);

    CHECK_INT(state_of(b, r), MJ_QUEUED);
    CHECK_INT(tell(b, r, SIG_CANCEL, "", T0), MJ_OK);
    CHECK_INT(state_of(a, r), MJ_CANCELLED);
    CHECK(lmdb_of(a)->env == lmdb_of(b)->env);
    mj_store_close(a);
    CHECK_INT(state_of(b, r), MJ_CANCELLED);
    add(b, (job){0}, T0);
    CHECK_INT(check_store(b), 2);
    mj_store_close(b);
    mj_store_close(NULL);
}

TEST("two directories are two stores")
{
    mj_store *a = open_store(), *b = open_store_at("other", &(mj_store_options){.rules = mj_rules_default});

    add(a, (job){0}, T0);
    CHECK_INT(check_store(a), 1);
    CHECK_INT(check_store(b), 0);
    mj_store_close(b);
    b = open_store_at("other", &(mj_store_options){.rules = mj_rules_default});
    CHECK_INT(check_store(b), 0);
    mj_store_close(a);
    mj_store_close(b);
}

TEST("a store that was removed and made anew is not taken for the old one")
{
    mj_store *old = open_store(), *new;

    add(old, (job){0}, T0);
    CHECK_INT(rename("store", "gone"), 0);
    new = open_store();
    CHECK_INT(check_store(new), 0);
    CHECK_INT(check_store(old), 1);
    mj_store_close(old);
    CHECK_INT(check_store(new), 0);
    mj_store_close(new);
}

TEST("a store that was moved away takes nothing more until it is back, whatever is in its place; it can be read")
{
    mj_store *s = open_store(), *other;
    ref r = add(s, (job){0}, T0);
    mj_op op = {.kind = MJ_OP_PAUSE, .sig = {.account = MJ_LIT("a")}, .until = T0};

    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_OK);
    CHECK_INT(rename("store", "gone"), 0);
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_EIO);
    CHECK(strstr(mj_store_detail(s), "moved, removed or replaced") != NULL);
    CHECK_INT(state_of(s, r), MJ_QUEUED);
    other = open_store();
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_EIO);
    CHECK_INT(mj_store_write(other, &op, 1, T0), MJ_OK);
    mj_store_close(other);
    CHECK_INT(rename("store", "other"), 0);
    CHECK_INT(rename("gone", "store"), 0);
    CHECK_INT(mj_store_write(s, &op, 1, T0), MJ_OK);
    CHECK_INT(check_store(s), 1);
    mj_store_close(s);
}

TEST("after a fork parent and child both go on with the handle, wherever the child goes")
{
    mj_store *s = open_store();
    ref r = add(s, (job){0}, T0);
    int status;
    pid_t pids[4];

    CHECK_INT(mkdir("elsewhere", 0700), 0);
    CHECK_INT(state_of(s, r), MJ_QUEUED); /* so that there is a reader to inherit */
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            CHECK_INT(chdir("elsewhere"), 0);
            CHECK_INT(state_of(s, r), MJ_QUEUED);
            CHECK(!mj_env_foreign(lmdb_of(s)->env)); /* nothing of the parent's is in use */
            CHECK(mdb_txn_env(lmdb_of(s)->reader.txn) == mj_env_lmdb(lmdb_of(s)->env));
            for (int k = 0; k < 10; k++)
                add(s, (job){0}, T0);
            if (i % 2) {
                pid_t grandchild = fork();
                if (grandchild == 0) {
                    add(s, (job){0}, T0);
                    mj_store_close(s);
                    mj_test_leave();
                }
                CHECK_INT(waitpid(grandchild, &status, 0), grandchild);
                CHECK_INT(status, 0);
            }
            mj_store_close(s);
            mj_test_leave();
        }
    }
    for (int k = 0; k < 10; k++)
        add(s, (job){0}, T0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(waitpid(pids[i], &status, 0), pids[i]);
        CHECK_INT(status, 0);
    }
    CHECK_INT(check_store(s), 1 + 5 * 10 + 2);
    mj_store_close(s);
}

TEST("a child that can't open the store is told so, again and again, and its parent is well")
{
    /* The test's own directory may lie below one that the other user can't search. */
    char dir[] = "/tmp/mjhook-fork.XXXXXX", store[64], command[64];
    mj_store_options o = {.rules = mj_rules_default};
    int status;
    pid_t pid;
    mj_store *s;

    if (geteuid() != 0)
        SKIP("needs root, to be two users");
    CHECK(mkdtemp(dir) != NULL);
    CHECK_INT(chmod(dir, 0755), 0);
    snprintf(store, sizeof store, "%s/store", dir);
    s = open_store_at(store, &o);
    add(s, (job){0}, T0);
    pid = fork();
    if (pid == 0) {
        mj_stats st;
        CHECK_INT(setuid(65534), 0);
        for (int i = 0; i < 3; i++)
            CHECK_INT(mj_store_stats(s, &st), MJ_EOWNER);
        CHECK(strstr(mj_store_detail(s), "root") != NULL);
        mj_store_close(s);
        mj_test_leave();
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(check_store(s), 1);
    mj_store_close(s);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK_INT(system(command), 0);
    CHECK_INT(status, 0);
}
