import re
TON=10**9
def test_prof(paying):
    e=paying.chain.emulator
    r0=paying.settle(TON//2)
    host=e._ready()
    host.call_int("_emulator_set_verbosity_level", e._pointer, 3) if False else None
    old=e._pointer
    e._pointer=host.call_int("_create_emulator", e._config_text, 3)
    r = paying.settle(TON)
    e._pointer=old
    for i in (0,1):
        open(f'/tmp/vm{i}.log','w').write(r[i].vm_log)
    print([(t.exit_code, t.gas_used) for t in r])
