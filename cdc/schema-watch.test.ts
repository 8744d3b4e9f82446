import test from 'ava';
import {schemaChangeCases} from './test-support/schema-change-cases.ts';

schemaChangeCases(test, 'off');
